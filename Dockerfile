# A node with a GPU, or the head of a cluster: what jobs/rayjob.yaml runs, on Kubernetes and elsewhere.
#   docker build -t REGISTRY/lacuna:0.1.0 .
#   docker run --gpus all --shm-size 2g -v "$PWD/out:/opt/lacuna/out" REGISTRY/lacuna:0.1.0 \
#     lacuna run configs/quickstart.yaml
# The versions are those of constraints.txt. CUDA comes with torch's wheel; the host needs NVIDIA's driver and container
# toolkit alone.
FROM python:3.11-slim-bookworm

# KubeRay's probes of a node call wget, and Ray's cluster launcher copies files by rsync.
RUN apt-get update && apt-get install -y --no-install-recommends wget rsync && rm -rf /var/lib/apt/lists/*

# By its number, so that Kubernetes can see that it is not root. Ray keeps state at home, and OpenShift runs containers as
# a user of its own, in group 0.
RUN useradd --uid 1000 --create-home ray && chgrp 0 /home/ray && chmod g=u /home/ray
ENV HOME=/home/ray RAY_USAGE_STATS_ENABLED=0

WORKDIR /opt/lacuna
# torch first, as in the Makefile; before the code, so that a change to the code fetches none of this again.
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch numpy
COPY pyproject.toml README.md LICENSE ./
COPY pipeline/__init__.py pipeline/
RUN pip install --no-cache-dir -c constraints.txt -e . && mkdir out && chown 1000:0 out && chmod g=u out
COPY pipeline pipeline
COPY configs configs
COPY jobs jobs

USER 1000
CMD ["lacuna", "--help"]
