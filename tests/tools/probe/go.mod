module github.com/function-builder/function-builder/tools/probe

go 1.26.0
