# Trade-Net's image: both binaries, and nothing that they do not need.
#
#     docker build -t tradenet .
#
# The cache mounts keep crates and compiled dependencies between builds; they are never part of the image.

ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock clippy.toml ./
COPY schemas schemas
COPY services services
COPY sim sim
COPY loadgen loadgen
COPY nats nats
# Locked: builds at the same time take turns with the cached target directory.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,sharing=locked \
    cargo build --release --locked --package tradenet --package loadgen \
    && install -D -t /out/usr/local/bin target/release/tradenet target/release/loadgen \
    && strip --strip-debug /out/usr/local/bin/tradenet /out/usr/local/bin/loadgen

FROM ${RUNTIME_IMAGE}
COPY --from=build /out /
COPY services/tradenet/stocks.csv /etc/tradenet/stocks.csv
# No user of the host, and none that has a name in the image: a container that is broken out of is nobody.
# The directory is made here so that a new named volume takes over its owner.
RUN install -d -o 10001 -g 10001 /data
USER 10001:10001
WORKDIR /data
ENV TRADENET_DATA_DIR=/data \
    TRADENET_STOCKS=/etc/tradenet/stocks.csv \
    TRADENET_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["tradenet"]
