"""What WaveGlow and Tacotron2 share: audio, configuration, devices, the training loop."""
