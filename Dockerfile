# syntax=docker/dockerfile:1
# One image for every service: `docker run tailrace run inference --use-case card_fraud`.
#
# BASE is any image with glibc 2.28 or newer; Python comes along, and so do CUDA's libraries, as wheels.
# For GPUs: --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04
ARG BASE=debian:bookworm-slim

FROM python:3.11-slim-bookworm AS build
# A Python that runs on every base, in a place that stays the same: a virtual environment holds its path.
ENV UV_PYTHON_INSTALL_DIR=/opt/python UV_PYTHON_PREFERENCE=only-managed UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.8 && uv venv --python 3.11 /opt/tailrace
WORKDIR /src
COPY pyproject.toml requirements.lock ./
# The lock holds the tools of developers too. Names come from pyproject.toml, versions and hashes from the lock:
# a package whose bytes differ from the lock's is refused.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip compile --quiet --python-version 3.11 --constraint requirements.lock pyproject.toml --output-file runtime.txt \
 && uv pip install --python /opt/tailrace/bin/python --require-hashes --constraint requirements.lock --requirement runtime.txt
COPY README.md LICENSE ./
COPY services services
RUN --mount=type=cache,target=/root/.cache/uv \
    uv build --wheel --out-dir /wheels \
 && uv pip install --python /opt/tailrace/bin/python --no-deps /wheels/*.whl

FROM ${BASE}
RUN groupadd --gid 10001 tailrace \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/tailrace --shell /usr/sbin/nologin tailrace \
 && install --directory --owner 10001 --group 10001 /var/lib/tailrace
COPY --from=build /opt /opt
COPY feature_repo /opt/feature_repo
# *_NUM_THREADS: as many as TAILRACE_THREADS; on a node of 64 cores each pool would else start 64 threads.
# NUMBA_CACHE_DIR: compiled window kernels are kept where a read-only root still lets them be written.
ENV PATH=/opt/tailrace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 MKL_NUM_THREADS=2 \
    NUMBA_CACHE_DIR=/tmp/numba \
    TAILRACE_USE_CASES=/opt/feature_repo \
    TAILRACE_STATE_DIR=/var/lib/tailrace \
    TAILRACE_LOG_JSON=true \
    TAILRACE_METRICS_HOST=0.0.0.0 \
    TAILRACE_METRICS_PORT=9464
VOLUME /var/lib/tailrace
WORKDIR /var/lib/tailrace
EXPOSE 9464
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
ENTRYPOINT ["tailrace"]
