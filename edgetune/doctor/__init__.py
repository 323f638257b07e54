"""What a fresh installation on a device lacks, each finding with what to do about it."""
