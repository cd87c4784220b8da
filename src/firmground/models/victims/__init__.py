"""Real Hugging Face victims: what is built on an encoder, behind the four small interfaces of `firmground.tasks`."""
