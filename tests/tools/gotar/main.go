// gotar FORMAT DIRECTORY ARCHIVE writes a directory's content as Go's archive/tar does: as USTAR,
// PAX or GNU, or in the format that it chooses itself (auto), as OpenFaaS's Go SDK has it.
// gotar list ARCHIVE prints what Go's archive/tar reads: a JSON object for each entry.
package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
)

var formats = map[string]tar.Format{
	"auto":  tar.FormatUnknown,
	"ustar": tar.FormatUSTAR,
	"pax":   tar.FormatPAX,
	"gnu":   tar.FormatGNU,
}

func main() {
	log.SetFlags(0)
	if len(os.Args) == 3 && os.Args[1] == "list" {
		if err := list(os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	if len(os.Args) != 4 {
		log.Fatal("usage: gotar auto|ustar|pax|gnu DIRECTORY ARCHIVE, or gotar list ARCHIVE")
	}
	format, known := formats[os.Args[1]]
	if !known {
		log.Fatalf("unknown format %s", os.Args[1])
	}
	if err := pack(format, os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

type found struct {
	Name   string
	Type   string
	Size   int64
	Target string
	SHA256 string
}

func list(archive string) error {
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close()
	reader := tar.NewReader(in)
	out := json.NewEncoder(os.Stdout)
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, reader); err != nil {
			return err
		}
		err = out.Encode(found{
			header.Name, string(header.Typeflag), header.Size, header.Linkname,
			hex.EncodeToString(sum.Sum(nil)),
		})
		if err != nil {
			return err
		}
	}
}

func pack(format tar.Format, root, archive string) error {
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	writer := tar.NewWriter(out)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		return add(writer, format, root, path, entry)
	})
	if err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return out.Close()
}

func add(writer *tar.Writer, format tar.Format, root, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	if header.Name, err = filepath.Rel(root, path); err != nil {
		return err
	}
	header.Format = format
	if err := writer.WriteHeader(header); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(writer, file)
	return err
}
