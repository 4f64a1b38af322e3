FROM alpine:3.20
COPY *.hidden /x/
