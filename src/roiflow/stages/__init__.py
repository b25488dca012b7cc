"""One thin module per DVC stage, same name: files in, files out."""
