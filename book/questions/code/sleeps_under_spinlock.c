static int remember(struct registry *registry, u32 key)
{
	struct entry *entry;

	spin_lock(&registry->lock);
	entry = kmalloc(sizeof(*entry), GFP_KERNEL);
	if (!entry) {
		spin_unlock(&registry->lock);
		return -ENOMEM;
	}
	entry->key = key;
	list_add(&entry->list, &registry->entries);
	spin_unlock(&registry->lock);
	return 0;
}
