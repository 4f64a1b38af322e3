FROM alpine:3.20
COPY *.txt /x/
