FROM alpine:3.20
RUN --mount=type=secret,id=api_token,env=API_TOKEN use
