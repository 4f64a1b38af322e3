FROM alpine
FROM alpine AS named
FROM alpine
