#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command with the GPU of this rank alone: the one at the rank's NUMA domain, 3 for the first rank of a node and
# 0 for the last. Not run: see environment.sh.
export CUDA_VISIBLE_DEVICES=$((3 - SLURM_LOCALID % 4))
exec "$@"
