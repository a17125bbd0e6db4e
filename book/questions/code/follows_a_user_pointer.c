static long counter_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	int __user *number = (int __user *)argument;

	switch (command) {
	case COUNTER_ADD:
		*number += 1;
		return 0;
	default:
		return -ENOTTY;
	}
}
