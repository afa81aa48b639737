"""Parts of edge_pipeline.py: commands, training, stages, what is shown."""
