// The smallest useful Go process: the yardstick for how fast a plugin's executable may start.
package main

import "os"

func main() {
	os.Stdout.WriteString("hello, world\n")
}
