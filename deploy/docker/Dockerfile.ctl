# The operator's command:
#   docker run --rm -e HTTVPS_API -e HTTVPS_TOKEN httvps-ctl user list
#
# Build from the repository's root:
#   docker build -f deploy/docker/Dockerfile.ctl --build-arg VERSION=v1.2.3 -t httvps-ctl .

FROM golang:1.26-bookworm AS build
ARG VERSION=dev
ENV CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local
WORKDIR /src
COPY go.mod go.sum ./
COPY sdk/go/go.mod sdk/go/go.sum ./sdk/go/
RUN go mod download
COPY . .
RUN go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/httvpsctl ./ctl/cmd/httvpsctl

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/httvpsctl /httvpsctl
USER 65532:65532
# One command, then it ends: there is nothing to probe.
HEALTHCHECK NONE
ENTRYPOINT ["/httvpsctl"]
CMD ["--help"]
