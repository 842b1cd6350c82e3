#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command with the GPU of this rank alone, by the rank's number on its node. Not run: see environment.sh.
export ROCR_VISIBLE_DEVICES=$SLURM_LOCALID
exec "$@"
