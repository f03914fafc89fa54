"""The checks of a request: the operator's policy, and limits of the Dockerfile."""
