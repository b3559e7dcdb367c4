"""What finished runs mean: records read from the harness's own result files."""
