FROM alpine:3.20 AS a
FROM debian@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef AS b
FROM b
COPY --from=a /x /x
