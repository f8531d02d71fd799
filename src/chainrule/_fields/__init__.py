"""What the Jacobian says of a vector field, and the paths along one."""
