"""A bundle behind the interface that most programs speak: OpenAI's, over HTTP, on this machine."""
