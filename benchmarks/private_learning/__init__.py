"""What private learning costs in accuracy: MNIST, watch data, and accuracy against bytes."""
