# syntax=docker/dockerfile:1

# One image with the four programs. It has no entry point: name the program, as docker-compose.yml does.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -o /out/ ./cmd/...

# No shell and no package manager, but root certificates for TLS.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/ /
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
