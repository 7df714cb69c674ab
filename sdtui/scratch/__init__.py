"""Diffusion from scratch: drawn scenes, tokenizer, autoencoder, text encoder, U-Net, and the judge of what they learnt."""
