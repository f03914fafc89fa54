module github.com/function-builder/function-builder/tools/fetch

go 1.24
