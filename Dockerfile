# The builder's image: the interpreter, the builder, the libraries of both, and nothing else.
# No shell, no package manager. `docker build .` makes it, and so does the builder itself.

# Any Debian with Python 3.11 or newer.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
# `cloud` has the credential helpers of ECR, GCR and ACR in it; `none` needs no Go image.
ARG HELPERS=cloud

FROM ${PYTHON_IMAGE} AS build
# Where pip looks, for networks that do not reach PyPI.
ARG PIP_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX
ARG SOURCE_DATE_EPOCH=0
WORKDIR /source
COPY requirements/image.txt requirements/build.txt requirements/
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/function-builder && \
    /build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt && \
    /build/bin/pip --python /opt/function-builder/bin/python3 install --no-cache-dir --no-compile \
        --require-hashes --only-binary :all: --requirement requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY image/rootfs image/
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . && \
    /build/bin/pip --python /opt/function-builder/bin/python3 install --no-deps --no-index \
        --no-compile /wheel/*.whl && \
    image/rootfs /opt/function-builder /rootfs

FROM scratch AS helpers-none

FROM --platform=${BUILDPLATFORM} golang:1.26-bookworm AS compile
ARG TARGETARCH
# Where Go looks for modules, and what vouches for them, for networks that do not reach its own.
ARG GOPROXY GOSUMDB
WORKDIR /source
COPY image/credential-helpers .
RUN mkdir /helpers && \
    CGO_ENABLED=0 GOARCH=${TARGETARCH} go build -trimpath -ldflags='-s -w' -o /helpers/ tool

FROM scratch AS helpers-cloud
COPY --from=compile /helpers/ /

FROM helpers-${HELPERS} AS helpers

FROM scratch
COPY --from=build /rootfs/ /
COPY --from=helpers / /usr/local/bin/
ENV PATH=/opt/function-builder/bin:/usr/local/bin HOME=/home/app PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /home/app
EXPOSE 8080 8081
LABEL org.opencontainers.image.title="function-builder" \
      org.opencontainers.image.description="An open Function Builder API: a signed tar in, a container image out" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["./pro-builder"]
