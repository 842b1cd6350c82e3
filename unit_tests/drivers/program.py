# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share: the program under test and how it is started, files of the current folder, text,
and a small model."""
import os
import random
import subprocess
import tempfile
import unittest

LIMIT = 300.0  # seconds that a run may take

# Two stages: Mamba-2 above, Transformer below. Mappings are changed by overrides on the command line.
DECK = """
params:
  num_tokens: 257
  pad_token_id: 256
  hidden_dims: [32, 24]
  num_layers: [2, 1]
  seq_lens: [64, 4]
  input_seq_len: 256
  block:
    - {block_type: mamba2, d_state: 8, d_conv: 4, expand: 2, headdim: 16}
    - {block_type: transformer, attn_head_dims: 12, attn_num_heads: 2, attn_use_rot_embs: true}
train:
  target_elements: 1600
  target_elements_strategy: batch
  batch_size: 8
  learning_rate: 0.005
  shuffle_train: true
io:
  name_model: run
  output_dir: .
  dataset: data.h5
  num_models_to_save: 1
  validate_amount: 1
"""


class Program:
    def __init__(self, strata, *mpiexec):
        """mpiexec: MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...], for runs on several ranks."""
        self.path, self.mpiexec = os.path.abspath(strata), mpiexec

    def launch(self, *arguments, ranks=1, threads=1, **variables):
        """Command and environment."""
        command = [self.path, *arguments]
        if ranks == 1:  # Open MPI starts faster without a daemon, and would give its folders one name
            variables = {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_MCA_orte_create_session_dirs": "0", **variables}
        else:
            launcher, count, *flags = self.mpiexec
            command = [launcher, count, str(ranks), *flags, *command]
        return command, {**os.environ, "OMP_NUM_THREADS": str(threads), **variables}

    def run(self, *arguments, status=0, stdin=b"", **how):
        """Standard output, as bytes, and standard error of a run that ends with `status`."""
        command, environment = self.launch(*arguments, **how)
        result = subprocess.run(command, capture_output=True, timeout=LIMIT, env=environment, input=stdin)
        errors = result.stderr.decode(errors="replace")
        assert result.returncode == status, f"{arguments}: status {result.returncode}: {errors}{result.stdout!r}"
        return result.stdout, errors

    def output(self, *arguments, **how):
        """Standard output of a run, as text."""
        return self.run(*arguments, **how)[0].decode(errors="replace")

    def refusal(self, *arguments, status=1, **how):
        """The one line that the program itself writes to standard error when it fails."""
        errors = self.run(*arguments, status=status, **how)[1]
        own = [line for line in errors.splitlines() if line.startswith("strata: ")]
        assert len(own) == 1, errors
        return own[0]


class InFolder(unittest.TestCase):
    """Each test runs in a temporary folder of its own."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        os.chdir(self.folder.name)

    def tearDown(self):
        os.chdir("/")
        self.folder.cleanup()


def write(name, content):
    with open(name, "wb") as out:
        out.write(content.encode() if isinstance(content, str) else content)


def read(name):
    with open(name, "rb") as data:
        return data.read()


def words(count, seed, of=("slate", "gneiss", "marl", "tuff", "loess")):
    generator = random.Random(seed)
    return " ".join(generator.choice(of) for _ in range(count))
