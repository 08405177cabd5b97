"""Ways to reach a kind of address; ``base`` says what a transport promises."""
