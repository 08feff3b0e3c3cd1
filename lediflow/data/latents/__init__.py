"""From images to stored latents: what `encode` is made of."""
