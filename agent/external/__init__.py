"""The researcher's chair for anyone: an agent that speaks MCP, a script or a person enters; trials leave."""
