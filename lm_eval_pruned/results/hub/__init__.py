"""Results of a pruned checkpoint as the Hugging Face hub shows them: in its model card, and in `.eval_results`."""
