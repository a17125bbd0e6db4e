/* Returns the square of what the sensor shows. */
long power(const volatile int *sensor)
{
    return (long)*sensor * *sensor;
}
