"""Statistical studies: what the methods hold over many seeds. Each prints figure, bar and whether it is met."""
