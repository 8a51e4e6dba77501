"""What carries workers: processes of this machine, SLURM, Ray. A file each."""
