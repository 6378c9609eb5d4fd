"""From paintings and photographs to a style pack: networks, losses, a training loop and the export."""
