"""What a deep feature reads: superpixels, words, word clouds, prototypes, optimized images."""
