# Worker, evaluator and the step that gets the data set, with libtorch.
#
#     docker build -f deploy/images/worker.Dockerfile -t cifar-worker .
#     docker build -f deploy/images/worker.Dockerfile --target gpu -t cifar-worker-gpu .
#
# For a build that can be repeated, name the base images by their digests: --build-arg RUST=rust@sha256:...
# --build-arg BASE=debian@sha256:... --build-arg PYTHON=python@sha256:...
ARG RUST=docker.io/library/rust:1.95.0-bookworm
ARG BASE=docker.io/library/debian:bookworm-slim
ARG PYTHON=docker.io/library/python:3.12-slim-bookworm

FROM ${RUST} AS build
# pip brings libtorch. Debian's stable release has one version of it.
# hadolint ignore=DL3008
RUN if ! command -v pip3; then \
        apt-get update \
        && apt-get install -y --no-install-recommends python3-pip \
        && rm -rf /var/lib/apt/lists/*; \
    fi
WORKDIR /src
COPY . .
# What the programs' --version tells; the sources come without their history.
ARG CIFAR_PS_COMMIT=unknown
# No line numbers of the source in the programs; their backtraces name functions.
ENV CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=debuginfo
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/root/.cache/cifar-ps \
    --mount=type=cache,target=/src/target \
    cargo run --release --locked --package xtask -- setup \
    && cargo build --release --locked --package cifar-worker --package cifar-data \
    && mkdir -p /out/bin /out/lib \
    && for program in cifar-worker cifar-eval cifar-data; do \
           cp "target/release/${program}" /out/bin/; \
       done \
    && cp .libtorch/lib/lib*.so.* .libtorch/lib/libtorch_cpu.so .libtorch/lib/libc10.so /out/lib/

FROM ${BASE} AS cpu
ARG CIFAR_PS_COMMIT=unknown
LABEL org.opencontainers.image.title="cifar-worker" \
      org.opencontainers.image.description="Worker and evaluator of a data-parallel training run" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${CIFAR_PS_COMMIT}"
# Certificates for the download of the data set.
# hadolint ignore=DL3008
RUN if ! [ -e /etc/ssl/certs/ca-certificates.crt ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends ca-certificates \
        && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=build /out/ /opt/cifar/
ENV PATH=/opt/cifar/bin:$PATH
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["/opt/cifar/bin/cifar-worker"]

# The wheel's libraries with CUDA, all in one place; the programs load them when they are given --gpu.
FROM ${PYTHON} AS cuda
RUN pip install --no-cache-dir --target /opt/torch torch==2.11.0

FROM cpu AS gpu
COPY --from=cuda /opt/torch /opt/torch
ENV LD_LIBRARY_PATH=/opt/torch/torch/lib

# What is built where no target is named.
FROM cpu
