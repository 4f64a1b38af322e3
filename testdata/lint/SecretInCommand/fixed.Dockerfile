FROM alpine:3.20
RUN --mount=type=secret,id=password,env=PASSWORD git clone https://me:$PASSWORD@example.com/x
