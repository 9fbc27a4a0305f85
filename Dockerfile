# Builds the image of the bridge, the topics Job and every other command: `docker build --tag binance-kafka-bridge .`
# Both bases need a Python of the same version at the same path, and glibc. Pin them by digest for a release:
# `--build-arg BUILD_BASE=python@sha256:…`. The runtime base needs no shell.
ARG BUILD_BASE=python:3.11-slim-bookworm
ARG RUNTIME_BASE=python:3.11-slim-bookworm

FROM ${BUILD_BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
WORKDIR /src
# Everything that may go in, each file checked against its hash; a layer of its own while only the source changes.
COPY requirements/run.txt requirements/
RUN python3 -m pip download --require-hashes --no-deps --requirement requirements/run.txt --dest /wheels
COPY pyproject.toml README.md LICENSE ./
COPY avro/ avro/
COPY topics/ topics/
COPY bridge/ bridge/
# From those files alone, and of them only what the package asks for: no build tool and no local broker's Java.
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
RUN python3 -m pip wheel --no-deps --wheel-dir /wheels . \
 && python3 -m venv --without-pip /opt/bridge \
 && python3 -m pip --python /opt/bridge/bin/python install "binance-kafka-bridge[fast,librdkafka]" \
 && /opt/bridge/bin/python -m compileall -q /opt/bridge/lib

FROM ${RUNTIME_BASE}
LABEL org.opencontainers.image.title="binance-kafka-bridge" \
      org.opencontainers.image.description="Binance streams as exact, accounted-for Avro records in Kafka" \
      org.opencontainers.image.licenses="Apache-2.0"
# Root owns the files and the process is nobody: it cannot change what it runs.
COPY --from=build /opt/bridge /opt/bridge
ENV PATH=/opt/bridge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=2
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /tmp
EXPOSE 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["binance-bridge"]
CMD ["--help"]
