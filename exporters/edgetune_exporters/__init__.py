"""The workstation side of edgetune: capture, lower, plan, verify and export PyTorch models."""
