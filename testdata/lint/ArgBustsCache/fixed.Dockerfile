FROM alpine:3.20
RUN apk add make
RUN make
ARG VERSION=1
RUN make install VERSION=$VERSION
