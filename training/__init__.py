"""Fine-tune causal language models on PromptCBLUE, and predict with them."""
