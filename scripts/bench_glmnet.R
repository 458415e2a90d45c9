# glmnet on arrays written by bench_peers.py: folder, threshold, family, mix. Prints CPU seconds and lambdas done.
args <- commandArgs(TRUE)
folder <- args[1]
suppressMessages(library(glmnet))
dims <- scan(file.path(folder, "dims"), quiet = TRUE)
n <- dims[1]; d <- dims[2]; K <- dims[3]
X <- matrix(readBin(file.path(folder, "X"), "double", n * d), n, d)
y <- factor(readBin(file.path(folder, "y"), "integer", n))
lambda <- readBin(file.path(folder, "lam"), "double", dims[4])
before <- proc.time()
fit <- glmnet(X, y, family = args[3], alpha = as.numeric(args[4]), lambda = lambda, standardize = FALSE,
              thresh = as.numeric(args[2]), type.multinomial = "ungrouped", maxit = 1e9)
cpu <- sum((proc.time() - before)[1:2])
out <- file(file.path(folder, "coef"), "wb")
if (args[3] == "binomial") {
  writeBin(as.double(rbind(as.vector(fit$a0), as.matrix(fit$beta))), out)
} else {
  for (k in 1:K) writeBin(as.double(rbind(fit$a0[k, ], as.matrix(fit$beta[[k]]))), out)
}
close(out)
cat(cpu, length(fit$lambda), as.character(packageVersion("glmnet")), "\n")
