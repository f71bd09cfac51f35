"""The reference's command: ``python train.py env=cheetah_run num_expl_steps=250000 num_train_steps=500000``."""

import sys

from visrep.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
