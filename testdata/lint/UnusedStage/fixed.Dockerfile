FROM alpine:3.20 AS used
# test runs the tests
FROM used AS test
FROM used
