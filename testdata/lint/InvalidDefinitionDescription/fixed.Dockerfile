# check=experimental=InvalidDefinitionDescription
# base is the image
FROM alpine:3.20 AS base
