"""The gradient of a share of a parameter, at the cost of the share."""
