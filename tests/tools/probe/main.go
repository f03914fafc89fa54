// A program for the images of other platforms that tests build by emulation: it says on what machine
// it runs, as the kernel names it, or, given a path, lets another run of itself say so there.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	if len(os.Args) == 1 {
		fmt.Println(machine())
		return
	}
	// Steps start programs that start programs: all of them must be emulated.
	said, err := exec.Command("/proc/self/exe").Output()
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[1], said, 0o644); err != nil {
		log.Fatal(err)
	}
}

func machine() string {
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		log.Fatal(err)
	}
	var letters []byte
	for _, letter := range name.Machine {
		if letter == 0 {
			break
		}
		letters = append(letters, byte(letter))
	}
	return string(letters)
}
