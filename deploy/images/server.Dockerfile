# The parameter server alone: one program without libraries, on nothing.
#
#     docker build -f deploy/images/server.Dockerfile -t cifar-ps .
#
# For a build that can be repeated, name the base image by its digest: --build-arg RUST=rust@sha256:...
ARG RUST=docker.io/library/rust:1.95.0-bookworm

FROM ${RUST} AS build
WORKDIR /src
COPY . .
# What cifar-ps --version tells; the sources come without their history.
ARG CIFAR_PS_COMMIT=unknown
# No line numbers of the source in the program; its backtraces name functions.
ENV CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=debuginfo
# Static: glibc goes into the program, so that the image needs no system; it looks up names without a library.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc --print host-tuple)" \
    && RUSTFLAGS="-C target-feature=+crt-static" \
       cargo build --release --locked --target "${target}" --package cifar-ps \
    && mkdir -p /out/bin /out/train /out/tmp \
    && cp "target/${target}/release/cifar-ps" /out/bin/

FROM scratch
ARG CIFAR_PS_COMMIT=unknown
LABEL org.opencontainers.image.title="cifar-ps" \
      org.opencontainers.image.description="Parameter server of a data-parallel training run" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${CIFAR_PS_COMMIT}"
COPY --from=build --chown=65532:65532 /out/ /
USER 65532:65532
WORKDIR /train
EXPOSE 2222 8080
ENTRYPOINT ["/bin/cifar-ps"]
