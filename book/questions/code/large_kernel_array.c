static ssize_t log_read(struct file *file, char __user *to, size_t count, loff_t *position)
{
	char text[8192];
	int len = format_log(text, sizeof(text));

	if (len < 0)
		return len;
	return simple_read_from_buffer(to, count, position, text, len);
}
